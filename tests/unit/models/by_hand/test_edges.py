"""Edges of networks and of what is shown of them: odd sides, borders, foldings, sizes; by hand."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.models import dae_unet, deformer, dpa_family, noisy_unet, piad_nets
from medae_jax.models.autoencoders import soft_intro
from medae_jax.models.layers import warp

WHITE, ORANGE, BLUE, RED = (1, 1, 1), (0.90, 0.45, 0.0), (0.05, 0.30, 0.75), (1, 0, 0)


def test_what_is_stretched_is_orange_and_what_folds_is_red():
  """Rows twice as far apart, as before, half, none, and turned round; the last row has no next one."""
  down = np.cumsum([0, 1, 0, -0.5, -1, -2])
  field = np.zeros((1, 6, 4, 2), np.float32)
  field[0, :, :, 0] = down[:, None]
  picture = np.asarray(deformer.shown_jacobian(jnp.asarray(field)))
  assert picture.shape == (1, 6, 4, 3)
  for row, colour in enumerate((ORANGE, WHITE, BLUE, RED, RED, RED)):
    np.testing.assert_allclose(picture[0, row], np.broadcast_to(colour, (4, 3)), atol=1e-6)
  turned = np.asarray(deformer.shown_jacobian(jnp.asarray(field.transpose(0, 2, 1, 3)[..., ::-1])))
  np.testing.assert_allclose(turned, picture.transpose(0, 2, 1, 3), atol=1e-6)


@pytest.mark.parametrize("sides, spacing", [((16, 48), 2), ((48, 16), 6), ((9, 40), 2)])
def test_lines_of_a_grid_are_an_eighth_of_the_height_apart(sides, spacing):
  grid = np.asarray(deformer.moved_grid(jnp.zeros((1, *sides, 2))))[0, ..., 0]
  rows, columns = np.indices(sides)
  np.testing.assert_array_equal(grid, (rows % spacing == 0) | (columns % spacing == 0))


def test_a_field_on_a_finer_grid_moves_as_far_in_its_own_pixels():
  field = jnp.broadcast_to(jnp.array([1.0, -2.0]), (1, 3, 5, 2))
  found = np.asarray(warp.resize_field(field, 2))
  assert found.shape == (1, 6, 10, 2)
  np.testing.assert_allclose(found, np.broadcast_to([2.0, -4.0], found.shape), rtol=1e-6)


# --------------------------------------------------------------------------------- noisy annotations
def test_an_odd_last_row_and_column_are_pooled_alone():
  x = -jnp.arange(1.0, 16).reshape(1, 3, 5, 1)  # all below 0, so that nothing added may win
  assert noisy_unet.max_pool(x)[0, ..., 0].tolist() == [[-1, -3, -5], [-11, -13, -15]]


def test_sides_are_continued_behind_the_image_by_its_edge():
  x = jnp.arange(1.0, 17 * 15 + 1).reshape(1, 17, 15, 1)
  found = np.asarray(noisy_unet.pad_to_multiple(x))
  assert found.shape == (1, 32, 16, 1)
  np.testing.assert_array_equal(found[:, :17, :15], x)
  np.testing.assert_array_equal(found[0, 17:, :15, 0], np.broadcast_to(x[0, -1, :, 0], (15, 15)))
  np.testing.assert_array_equal(found[0, :17, 15, 0], x[0, :, -1, 0])


def test_the_last_block_has_no_relu(monkeypatch):
  """Of 19 convolutions 16 have one, and of the four maps made larger all."""
  relus, plain = [], noisy_unet.nn.relu
  monkeypatch.setattr(noisy_unet.nn, "relu", lambda x: relus.append(x.shape[1:]) or plain(x))
  net = noisy_unet.NoisyUNet(width=2)
  jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
  assert len(relus) == 20
  assert [shape for shape in relus if shape[0] == 16] == [(16, 16, 2)] * 3, "down1 twice, and up3's end"


# ------------------------------------------------------------------------------- sizes that fit and do not
@pytest.mark.parametrize("res, latent_res, fits", [
    (8, 4, True), (8, 1, True), (8, 8, False), (16, 8, True), (4, 1, False), (12, 1, False), (16, 2, False)])
def test_a_latent_is_at_most_half_as_wide_as_the_image(res, latent_res, fits):
  widths = (4,) * piad_nets.needed_widths(res, latent_res)
  if fits:
    piad_nets.check("enc", widths, res, latent_res)
  else:
    with pytest.raises(UserError, match=f"config.model.enc: res={res} must be a power of two from 8"):
      piad_nets.check("enc", widths, res, latent_res)


@pytest.mark.parametrize("before, after, by_identity, expands", [
    (256, 256, True, False), (257, 257, True, True), (257, 257, False, False), (257, 300, True, False)])
def test_published_widths_are_one_object_up_to_256(before, after, by_identity, expands):
  assert soft_intro.expands(before, after, by_identity) == expands


def dpa(**changes):
  return ml_collections.ConfigDict({
      "kind": "residual18", "max_res": 16, "latent_dim": 8, "latent_res": 1, "enc_widths": (2, 3, 4),
      "dec_widths": (), "critic_widths": (), "norm": "none", "pad": "zero", "use_wscale": False,
      "normalize_latents": False, "pool": "avg", "upsample": "nearest", "allow_long_widths": False,
      **changes})


def test_lists_of_widths_may_be_too_long_where_that_is_asked_for():
  longer = {"enc_widths": (1, 2, 3, 4)}
  dpa_family.check_model(dpa(allow_long_widths=True, **longer), first_res=16, critic=True)
  with pytest.raises(UserError, match="4 widths .* needs 3"):
    dpa_family.check_model(dpa(**longer), first_res=16, critic=True)
  with pytest.raises(UserError, match="config.model.critic: 2 widths"):
    dpa_family.check_model(dpa(critic_widths=(2, 3)), first_res=16, critic=True)
  dpa_family.check_model(dpa(critic_widths=(2, 3)), first_res=16, critic=False)


@pytest.mark.parametrize("latent_res, least", [(1, 4), (8, 8)])
def test_growing_begins_at_the_coarsest_block_or_above(latent_res, least):
  widths = (2, 8) if latent_res == 8 else (2, 3, 4)
  model = dpa(latent_res=latent_res, enc_widths=widths)
  dpa_family.check_model(model, first_res=least, critic=False)
  with pytest.raises(UserError, match=f"initial_res={least // 2} is below the coarsest block, {least} px"):
    dpa_family.check_model(model, first_res=least // 2, critic=False)


@pytest.mark.parametrize("sides, depth, fits", [
    ((16, 24), 4, True), ((8, 24), 4, False), ((24, 8), 4, False), ((20, 16), 4, False), ((2, 3), 1, True)])
def test_the_deepest_maps_have_two_pixels_to_reflect(sides, depth, fits):
  if fits:
    dae_unet.check_size((1, *sides, 3), depth)
  else:
    with pytest.raises(UserError, match=f"images of {sides[0]}x{sides[1]} cannot be halved"):
      dae_unet.check_size((1, *sides, 3), depth)
