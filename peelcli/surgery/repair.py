from __future__ import annotations
import torch
from torch import nn
from peelcli.patches import *
from peelcli.products import *
from peelcli.surgery.walk import Walk
from peelcli.surgery import ridge
from peelcli.surgery.prune import entries_of
from peelcli.tensors import named_tensors, full_copy

ELEMENTS = 64_000_000
import time
T = {}
def norms_after(module, inputs):
    outs = {}; norms = {}; calls = {}
    names = {id(t): n for n, t in named_tensors(module)}
    def handler(p, run):
        out = run(); outs[id(out)] = (p.name, out); calls[p.name] = p.call + 1
        return out
    def others(func, args, kwargs, out):
        if func is torch.batch_norm:
            f = outs.get(id(args[0]))
            mean = names.get(id(args[3]))
            if f and f[1] is args[0] and mean: norms[f[0]] = mean
    with torch.no_grad(), watching(module, handler, others): module(*inputs)
    return norms, calls

def repair(original, slim, cuts, samples, seed, log=None):
    original = full_copy(original).eval()
    torch.set_grad_enabled(False)
    kept = {n: d for n, d in entries_of(cuts, removed=True).items()}
    inputs = next(samples.batches(len(samples)))
    one = next(samples.batches(1))
    norms, calls = norms_after(slim, one)
    tensors = dict(named_tensors(slim))
    otensors = dict(named_tensors(original))
    with python_functions_open():
        a, b = Walk(original, inputs), Walk(slim, inputs)
        try:
            while True:
                p, q = a.advance(), b.advance()
                if q is None: break
                assert p.name == q.name
                y = a.compute()
                if q.kind == "transposed" or calls[q.name] > 1: continue
                t0 = time.time()
                out_dim = 0 if not q.flipped else 1
                gone = kept.get(q.name, {}).get(out_dim, set())
                full = otensors[q.name].shape[out_dim]
                keep = torch.tensor([i for i in range(full) if i not in gone])
                m = q.matrix(); G, O, I, K = m.shape; D = I * K
                grid = output_grid(p, y)
                rows = min(max(4096 if G == 1 else 1024, 6 * D), ELEMENTS // (G * D))
                at = positions(grid, rows, generator(seed, q.name))
                x = patches_at(q, at)
                target = outputs_at(p, y, at)[:, keep]
                now = (x @ m.reshape(G, O, D).transpose(1, 2))
                if q.bias is not None: now = now + q.bias.reshape(G, 1, O)
                err = target.reshape(-1, G, O).transpose(0, 1) - now
                norm = norms.get(q.name)
                biased = q.bias is not None and any(q.bias is t for t in tensors.values())
                f = ridge.fit(x, err, biased or norm is not None)
                base = float(target.var(0).mean())
                if log is not None: log.append((q.name, D, x.shape[1], None if f is None else (f.before/base, f.after/base)))
                if f is not None:
                    dw = f.weight.reshape(G, O, I, K)
                    w = q.weight.data
                    if q.kind == "linear":
                        w += (dw[0, :, :, 0].t() if q.flipped else dw[0, :, :, 0])
                    else:
                        w += dw.reshape(w.shape)
                    if biased: q.bias.data += f.bias.reshape(-1)
                    elif norm: tensors[norm] -= f.bias.reshape(-1)
                T[q.name] = time.time() - t0
        finally:
            a.close(); b.close()
    return slim
