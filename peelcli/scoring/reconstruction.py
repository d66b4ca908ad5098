"""What the output loses with a channel when the others make up for it (data; optimal brain surgeon)."""
from __future__ import annotations
import torch
from peelcli.records import Group, GroupScore, Scores
from peelcli.scoring.base import Material
from peelcli.scoring.moments import WIDE, Moments, measure

NEEDS_SAMPLES = True
_DAMP = 1e-3
_BLOCKS = 64

def score(material):
    graph = material.graph
    weights = {p.tensor for g in graph.groups if not g.locked for p in g.slices if p.role == "in"}
    found = measure(material.subject, material.samples, weights, material.seed)
    result = []
    for g in graph.groups:
        if g.locked:
            result.append(GroupScore((0.0,)*g.full, 0.0)); continue
        cons = [Consumer.of(p, g, found[p.tensor]) for p in g.slices if p.role == "in" and p.tensor in found]
        ch = order(g, cons)
        result.append(GroupScore(tuple(ch), sum(ch)))
    return Scores("reconstruction", tuple(result))

NS = [128, None]
def shrunk(cov, n):
    p = cov.shape[1]
    d = cov.diagonal(dim1=1, dim2=2).clamp(min=1e-30).sqrt()
    r = cov / d[:, :, None] / d[:, None, :]
    sq = (r * r).sum((1, 2))
    rho = ((1 - 2 / p) * sq + p * p) / ((n + 1 - 2 / p) * (sq - p)).clamp(min=1e-30)
    rho = rho.clamp(0, 1)[:, None, None]
    return cov * (1 - rho) + rho * torch.diag_embed(d * d)

class Consumer:
    """P, Q restricted to left bundles."""
    def __init__(self, P, Q, cols):
        self.P, self.Q, self.cols = P, Q, cols  # cols: [bundles, m] or -1 
    @staticmethod
    def of(piece, group, mom: Moments):
        entries = [[e for c in b for e in piece.indices[c]] for b in group.bundles]
        m = max(map(len, entries))
        w = mom.matrix.double()  # g,O,I,k
        G, O, I, k = w.shape
        s = mom.sensitivity.reshape(G, O).double().sqrt() if isinstance(mom.sensitivity, torch.Tensor) else torch.ones(G,O)
        w = w * s[:, :, None, None]
        if mom.rows:
            x = torch.cat(mom.rows).double()
            mm = max(len(i) for i in piece.indices)
            idx = torch.tensor([list(i) for i in piece.indices])  # C, mm
            x = x[:, idx].transpose(1, 2).reshape(-1, len(idx))
            x = x - x.mean(0)
            cov = (x.T @ x / len(x))[None]
            w = w[0, :, :, 0][:, idx].permute(0, 2, 1).reshape(1, -1, len(idx), 1)
            entries = [list(b) for b in group.bundles]; m = max(map(len, entries))
        else:
            cov = mom.covariance()
        cov = shrunk(cov, NS[0] if NS[1] is None else min(NS[1] * NS[0], mom.count))
        w = w.transpose(2, 3).reshape(G, -1, w.shape[2])
        Q = w.transpose(1, 2) @ w
        diag = cov.diagonal(dim1=1, dim2=2)
        lam = _DAMP * diag.mean(1).clamp(min=1e-12)
        H = cov + torch.diag_embed(lam[:, None].expand_as(diag))
        P = torch.linalg.inv(H)
        cols = torch.full((len(entries), m), -1)
        for b, e in enumerate(entries):
            cols[b, :len(e)] = torch.tensor(e, dtype=torch.long)
        return Consumer(P, Q, cols)
    def costs(self):
        cols = self.cols
        have = (cols >= 0)
        c = cols.clamp(min=0)
        Pb = self.P[:, c[:, :, None], c[:, None, :]]
        Qb = self.Q[:, c[:, :, None], c[:, None, :]]
        both = have[:, :, None] & have[:, None, :]
        eye = torch.eye(cols.shape[1], dtype=Pb.dtype)
        Pb = torch.where(both, Pb, eye); Qb = torch.where(both, Qb, torch.zeros_like(eye))
        if cols.shape[1] == 1:
            return (Qb / Pb)[:, :, 0, 0].sum(0)
        return torch.linalg.solve(Pb, Qb).diagonal(dim1=-2, dim2=-1).sum(-1).sum(0)
    def remove(self, gone, left):
        R = self.cols[gone].flatten(); R = R[R >= 0]
        keepmask = torch.ones(self.P.shape[1], dtype=torch.bool); keepmask[R] = False
        K = keepmask.nonzero()[:, 0]
        P, Q = self.P, self.Q
        if len(R):
            M = torch.linalg.solve(P[:, R][:, :, R], P[:, R][:, :, K])
            self.P = P[:, K][:, :, K] - P[:, K][:, :, R] @ M
            QRK = Q[:, R][:, :, K]
            t = QRK.transpose(1, 2) @ M
            self.Q = Q[:, K][:, :, K] - t - t.transpose(1, 2) + M.transpose(1, 2) @ Q[:, R][:, :, R] @ M
        new = torch.full((len(keepmask),), -1); new[K] = torch.arange(len(K))
        cols = self.cols[left]
        self.cols = torch.where(cols >= 0, new[cols.clamp(min=0)], -1)

def order(group, cons):
    n = len(group.bundles)
    left = torch.arange(n)
    worth = torch.zeros(n, dtype=torch.float64)
    last = 0.0
    block = max(1, n // _BLOCKS)
    least = max(1, group.floor // group.bundle_size)
    def rising(values):
        nonlocal last
        out = []
        for v in values:
            last = max(float(v), last * (1 + 1e-9)); out.append(last)
        return out
    while cons and len(left) > least:
        costs = sum(c.costs() for c in cons)
        take = min(block, len(left) - least)
        o = torch.argsort(costs, stable=True)[:take]
        worth[left[o]] = torch.tensor(rising(costs[o].clamp(min=0).tolist()), dtype=torch.float64)
        keep = torch.ones(len(left), dtype=torch.bool); keep[o] = False
        rest = keep.nonzero()[:, 0]
        for c in cons: c.remove(o, rest)
        left = left[rest]
    if cons:
        costs = sum(c.costs() for c in cons)
        o = torch.argsort(costs, stable=True)
        worth[left[o]] = torch.tensor(rising(costs[o].clamp(min=0).tolist()), dtype=torch.float64)
    ch = torch.zeros(group.full, dtype=torch.float64)
    for b, bundle in enumerate(group.bundles):
        ch[list(bundle)] = worth[b]
    return ch.tolist()
