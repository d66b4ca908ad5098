"""The exact label pass: which entries of which tensors are one channel, learnt by running the model once on labels."""
