"""Which maps of encoder and decoder the deformer reads, and what it says where they do not meet."""

import jax
import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.models import deformer
from medae_jax.models.autoencoders import parts


def _maps(*sides):
  return [np.zeros((1, side, side, 2)) for side in sides]


def test_pairs_are_of_equal_size_deepest_first():
  found = deformer.pairs(_maps(8, 4, 2, 1), _maps(2, 4, 8, 16))
  assert [(a.shape[1], b.shape[1]) for a, b in found] == [(2, 2), (4, 4), (8, 8)]


@pytest.mark.parametrize("encoder, decoder", [
    ((24, 12, 6, 3, 2, 1), (2, 4, 8, 16, 32, 64)), ((8, 4, 2), (4, 8, 16))])
def test_maps_that_do_not_meet_are_named(encoder, decoder):
  with pytest.raises(UserError, match=f"{encoder[0]}x{encoder[0]}, .*2.L pixels"):
    deformer.pairs(_maps(*encoder), _maps(*decoder))


def test_maps_grow_by_the_strides_of_the_encoder_from_its_last_on():
  net = deformer.Deformer(levels=2, channels=(3, 4), strides=(1, 2), norm="none")
  maps = [(np.zeros((1, n, n, 4)), np.zeros((1, n, n, 5))) for n in (2, 4)]
  found, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), maps)
  assert found.shape == (1, 4, 4, 2)  # 2 -> 4 by the stride 2, then by 1
  kernels = {name: layer["kernel"].shape[2] for name, layer in variables["params"].items()}
  assert kernels == {"conv0": 4 + 5, "conv1": 4 + 5 + deformer.WIDTH, "flow": deformer.WIDTH}


def test_a_grid_has_lines_every_eighth_of_the_height_whatever_the_width():
  found = np.asarray(deformer.moved_grid(np.zeros((1, 16, 5, 2), np.float32)))[0, ..., 0]
  want = np.zeros((16, 5))
  want[::2], want[:, ::2] = 1, 1
  np.testing.assert_array_equal(found, want)


def test_sides_are_halved_each_for_itself():
  assert parts.halved((8, 16, 1), 2, "config.model.widths") == (2, 4)
  with pytest.raises(UserError, match="images of 8x6 cannot be halved 2 times"):
    parts.halved((8, 6, 1), 2, "config.model.widths")


def test_what_is_stretched_more_than_twice_is_shown_alike():
  rows, columns = np.mgrid[:6, :7].astype(np.float32)
  field = np.stack([rows, columns], -1)[None]
  four, sixteen, eighth = (np.asarray(deformer.shown_jacobian(k * field))
                           for k in (1.0, 3.0, -0.65))
  np.testing.assert_allclose(four, sixteen, atol=1e-5)
  assert min(x.min() for x in (four, eighth)) >= 0 and not np.allclose(four, eighth)


def test_maps_of_one_column_are_left_out_and_those_of_one_row_are_not():
  of = lambda *sizes: [np.zeros((1, *size, 2)) for size in sizes]
  sizes = lambda found: [a.shape[1:3] for a, _ in found]
  assert sizes(deformer.pairs(of((2, 4), (1, 2), (1, 1)), of((1, 2), (2, 4), (4, 8)))) == [(1, 2), (2, 4)]
  assert sizes(deformer.pairs(of((4, 2), (2, 1), (1, 1)), of((2, 1), (4, 2), (8, 4)))) == [(4, 2)]
