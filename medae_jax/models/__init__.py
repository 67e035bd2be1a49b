"""Networks as Linen modules, one family a file; what several of them share lives in layers/.

No losses, no optimisers, no data: a network maps arrays to arrays.
"""
