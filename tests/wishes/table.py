"""The 54 wishes as data; `python -m tests.documents.write` makes docs/wishes.md of them.

A wish is said in our words; `answer` is the command or call, `tests` run it (node ids without parameters),
`limit` is what those tests do not show: such a wish counts as met in part.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Wish:
  """One wish. `needs`: a package without which its test is skipped."""
  number: int
  wish: str
  answer: str
  tests: tuple[str, ...]
  limit: str = ""
  needs: str = ""


OWN = "tests/wishes/test_runs.py::"
UNIT = "tests/unit/"
E2E = "tests/e2e/"
CONTRACT = "tests/contract/"


def _wish(number, wish, answer, *tests, limit="", needs=""):
  return Wish(number, wish, answer, tests, limit, needs)


EXPORT = (
    _wish(1, "an export keeps the thresholds", "--mode=export: calibration.json in the folder",
          OWN + "test_an_export_keeps_thresholds_and_gives_the_same_scores"),
    _wish(2, "predict and export give the same scores", "export.load(folder)(batch) equals run.score(batch)",
          OWN + "test_an_export_keeps_thresholds_and_gives_the_same_scores",
          UNIT + "modes/test_export.py::test_same_scores_for_any_batch_size"),
    _wish(3, "an export prepares a file as training did, also one that is not square",
          "--formats=onnx: run_onnx.py and preparation/ in the folder",
          UNIT + "modes/test_export_onnx.py::test_the_folder_gives_the_files_of_predict_without_jax"),
    _wish(4, "the same anomaly map from every way to score", "run.score(batch), export, --mode=predict",
          OWN + "test_an_export_keeps_thresholds_and_gives_the_same_scores",
          UNIT + "modes/test_predict.py::test_maps_equal_score_on_the_prepared_slices"),
    _wish(5, "outputs of an export say what they are", "manifest.json: outputs map, score, recon",
          OWN + "test_an_export_keeps_thresholds_and_gives_the_same_scores",
          UNIT + "modes/test_export.py::test_saved_model"),
    _wish(6, "scores that are not all 1.0 after normalising", "--mode=predict: score of predictions.csv",
          OWN + "test_scores_are_those_of_the_method"),
    _wish(7, "ONNX out of JAX", "--mode=export --formats=onnx",
          UNIT + "modes/test_export_onnx.py::test_onnx_by_onnxruntime", needs="jax2onnx"),
)

THRESHOLDS = (
    _wish(8, "a sensible threshold where val has no anomalies", "own_folder.py:dae with normal/ alone",
          E2E + "test_own_folder.py::test_normals_alone_from_folder_to_verdict",
          UNIT + "tasks/test_whole_scans.py::test_normal_scans_alone_give_a_promise_and_too_few_none"),
    _wish(9, "a threshold set by hand has an effect", "--mode=predict --config.predict.threshold=0.7",
          OWN + "test_a_threshold_set_by_hand_counts"),
    _wish(10, "what is the threshold, and why", "calibration.json and report.html: value and rule",
          OWN + "test_the_threshold_is_explained"),
    _wish(11, "one scale for all heat maps", "--mode=predict: cal_max of every map, one colour bar",
          OWN + "test_maps_and_masks_lie_on_the_input_with_one_scale"),
    _wish(12, "the binary mask as a file in the original size", "--mode=predict: *_mask.nii.gz, *_mask.png",
          OWN + "test_maps_and_masks_lie_on_the_input_with_one_scale",
          UNIT + "modes/test_predict_masks.py::test_mask_lies_on_the_pixels_of_the_file"),
    _wish(13, "the plain map without decoration", "--mode=predict: *_anomaly.nii.gz, *_anomaly.tif, float32",
          OWN + "test_maps_and_masks_lie_on_the_input_with_one_scale"),
    _wish(14, "score one image, with a threshold", 'mx.load("runs/dae").score("scan.nii.gz")',
          OWN + "test_one_scan_in_python"),
    _wish(15, "normal or abnormal, by which threshold", "run.score(file).verdict; column called_abnormal",
          OWN + "test_one_scan_in_python",
          UNIT + "modes/test_predict_masks.py::test_image_threshold_is_that_of_the_calibration"),
    _wish(16, "check an export against the model on one batch", "--mode=export: parity in manifest.json",
          OWN + "test_an_export_keeps_thresholds_and_gives_the_same_scores",
          UNIT + "modes/test_export.py::test_lost_parity_is_an_error"),
)

DATA = (
    _wish(17, "train with normal images alone, without masks", "--config=own_folder.py:dae, data.dir=mine",
          E2E + "test_own_folder.py::test_normals_alone_from_folder_to_verdict"),
    _wish(18, "no crash of AUROC without masks", "--mode=evaluate: null with its reason",
          UNIT + "modes/test_evaluate.py::test_what_is_not_known_is_null_with_its_reason",
          UNIT + "modes/test_evaluate.py"
          "::test_labels_without_masks_keep_abnormal_images_out_of_the_threshold"),
    _wish(19, "how many normal and abnormal images each split has", "train and evaluate print the table",
          E2E + "test_launch.py::test_train_then_evaluates"),
    _wish(20, "grey and 16-bit images as they are", "own_folder.py with grey PNG files; formats/images.py",
          E2E + "test_own_folder.py::test_normals_alone_from_folder_to_verdict",
          UNIT + "formats/test_depth.py::test_every_view_of_every_form_is_the_same_picture"),
    _wish(21, "more than three channels", "dae_brats.py: FLAIR, T1, T1ce and T2 are four channels",
          OWN + "test_four_channels"),
    _wish(22, "images that are not square; tiles of large ones", "--mode=predict on volumes and on slides",
          UNIT + "intake/test_geometry.py::test_oblong_voxels_are_not_squeezed",
          UNIT + "modes/test_predict.py::test_other_in_plane_size_and_empty_slices",
          UNIT + "slides/test_predict.py::test_the_map_is_right_where_there_is_tissue_and_0_elsewhere"),
    _wish(23, "something to try where the data cannot be had", "configs without data.dir: SYNTHETIC data",
          UNIT + "data/test_synthetic.py::test_brats_without_folder_is_synthetic_and_called_so",
          "tests/documents/test_pages.py::test_every_data_set_says_where_it_is_to_be_had"),
    _wish(24, "how BraTS was prepared, and Dice patient by patient", "data_pipelines.prepare brats; test.csv",
          UNIT + "data/test_prepare_programs.py::test_brats_prepares_what_the_data_set_then_finds",
          OWN + "test_dice_of_every_patient"),
    _wish(25, "preparation that can be repeated", "python -m data_pipelines.prepare brats --dir=...",
          UNIT + "data/test_prepare_cache.py::test_workers_and_storage_change_no_number",
          UNIT + "data/test_prepare_cache.py::test_other_parameters_do_not_share_a_folder"),
    _wish(26, "the lists of the split", "published lists in the package; runs/X/splits.csv",
          UNIT + "data/test_prepare.py::test_published_lists_are_used_for_published_ids",
          E2E + "test_own_folder.py::test_normals_alone_from_folder_to_verdict"),
    _wish(27, "a data set of one's own", "--allow_code --config=mine_config.py (CONTRIBUTING.md)",
          E2E + "test_outside.py::test_trains_evaluates_predicts_and_exports"),
    _wish(28, "preparing a data set by one command", "python -m data_pipelines.prepare brats | pairs | ...",
          UNIT + "data/test_prepare_programs.py::test_brats_prepares_what_the_data_set_then_finds",
          UNIT + "data/test_prepare_programs.py::test_pairs_and_noisy_study_run_by_name"),
    _wish(29, "TensorFlow Datasets from local files, without network",
          "python -m data_pipelines.brains.tfds_brats --manual_dir=...",
          UNIT + "data/test_tfds_brats.py::test_command_line",
          UNIT + "data/test_tfds_brats.py::test_reading_it_equals_reading_the_volumes"),
    _wish(30, "NIfTI results with the orientation and spacing of the input", "--mode=predict on NIfTI",
          OWN + "test_maps_and_masks_lie_on_the_input_with_one_scale",
          UNIT + "intake/test_geometry.py::test_every_order_of_axes_gives_one_map_on_its_own_grid"),
    _wish(31, "caches that are neither stale nor fill the memory", "data.prepared_dir: checksums",
          UNIT + "data/test_prepare_cache.py"
          "::test_a_second_open_prepares_nothing_and_a_changed_scan_alone_again",
          UNIT + "data/test_prepare_cache.py::test_a_split_too_large_for_memory_is_read_from_its_files"),
    _wish(32, "which inputs and ranges a method expects", "Need of the method, trained_on.json: checked",
          CONTRACT + "test_method.py::test_the_first_batch_is_checked_against_needs",
          UNIT + "modes/test_predict_fit.py::test_brains"),
)

MACHINES = (
    _wish(33, "less memory", "--config.train.accum=4, model.remat=True, model.dtype=bfloat16",
          UNIT + "modes/test_train_options.py::test_accumulated_gradients_are_those_of_the_batch",
          UNIT + "modes/test_train_options.py::test_rematerialisation_changes_nothing",
          UNIT + "modes/test_evaluate.py::test_maps_go_to_a_file_where_they_do_not_fit"),
    _wish(34, "an out-of-memory message that helps", "train: one line with the fields to change",
          UNIT + "training/test_start.py::test_exhausted_memory_names_what_to_change"),
    _wish(35, "several GPUs that give the result of one", "all local devices are used",
          CONTRACT + "test_devices.py::test_four_devices_agree_with_one",
          limit="run on CPU devices and in two processes; several GPUs were not at hand"),
    _wish(36, "jobs side by side", '--mode=sweep --config.sweep.shard="(0,2)"; --config.seeds="(0,1)"',
          E2E + "test_sweep.py::test_shards_divide_the_runs",
          E2E + "test_sweep_machines.py::test_a_run_of_another_process_is_left_to_it"),
    _wish(37, "fast metrics that can be selected", "--mode=evaluate --config.eval.measures='(\"aupro\",)'",
          OWN + "test_measures_are_selected"),
    _wish(38, "TensorFlow leaves the accelerator's memory alone",
          "tensorflow-cpu: a build that has no code for GPUs; another build is told to see none",
          OWN + "test_tensorflow_has_no_gpu_and_hides_those_of_other_builds"),
    _wish(39, "pmap or a sharded jit, by choice", "--config.parallel.mode=shard_map (run on CPU devices)",
          CONTRACT + "test_devices.py::test_shard_map_agrees"),
    _wish(40, "no overhead of NNX objects", "Linen modules and plain dicts of arrays",
          OWN + "test_no_nnx_and_no_shuffle_buffer"),
    _wish(41, "no shuffle buffer in memory", "order is a function of the step",
          OWN + "test_no_nnx_and_no_shuffle_buffer",
          UNIT + "data/test_stream.py::test_starting_far_away_takes_no_longer"),
)

RUNS = (
    _wish(42, "the same seed gives the same run", "mx.train(config, A), mx.train(config, B)",
          OWN + "test_the_same_seed_twice"),
    _wish(43, "bit-identical runs on a GPU", "XLA_FLAGS=--xla_gpu_deterministic_ops=true",
          OWN + "test_flags_of_the_user_reach_xla", limit="the flag is kept; not tried on a GPU"),
    _wish(44, "resuming goes on at the right example", "the same command again",
          CONTRACT + "test_method.py::test_resume_is_exact",
          UNIT + "data/test_stream.py::test_resume_at_any_step_equals_the_unbroken_stream"),
    _wish(45, "no iterator state to save", "the stream is a function of (seed, step)",
          UNIT + "data/test_stream.py::test_resume_at_any_step_equals_the_unbroken_stream"),
    _wish(46, "batch statistics over all devices",
          "batch normalisation: 1 and 4 CPU devices and two processes give equal parameters",
          CONTRACT + "test_devices.py::test_four_devices_agree_with_one"),
    _wish(47, "not everything called abnormal", "specificity at val's threshold with its interval",
          OWN + "test_false_alarms_are_counted",
          UNIT + "metrics/test_conformal.py::test_false_alarms_keep_the_promise_for_small_n"),
    _wish(48, "a checkpoint opens on another number of devices", "the same command on another machine",
          CONTRACT + "test_devices.py::test_checkpoints_move_between_device_counts",
          UNIT + "modes/test_evaluate.py::test_checkpoint_of_four_devices_is_scored_on_one"),
    _wish(49, "a run goes on with other devices", "the same command on another machine",
          CONTRACT + "test_devices.py::test_checkpoints_move_between_device_counts"),
    _wish(50, "a failed save is not silent", "a full disk ends the run with one line",
          E2E + "test_robustness.py::test_full_disk_while_saving"),
    _wish(51, "preemption loses nothing", "SIGTERM saves; the same command goes on",
          E2E + "test_robustness.py::test_signal_saves_and_resumes",
          E2E + "test_robustness.py::test_kill_in_mid_save"),
    _wish(52, "checkpoints of plain arrays", "mx.load(workdir): config.json and the checkpoint alone",
          CONTRACT + "test_method.py::test_restored_from_workdir_alone_scores_the_same"),
    _wish(53, "wrong fields are said, configs are locked", "--config.train.stepz=3: one line, exit 2",
          E2E + "test_launch.py::test_wrong_command_line_is_one_line"),
    _wish(54, "a state without a device axis", "jax.jit(run.method.score)(run.state, batch)",
          OWN + "test_one_scan_in_python"),
)

SECTIONS = {"Export and scoring": EXPORT, "Thresholds and heat maps": THRESHOLDS, "Data": DATA,
            "Memory, speed, devices": MACHINES, "Reproducible runs, checkpoints, configs": RUNS}
WISHES = tuple(wish for part in SECTIONS.values() for wish in part)


def summary() -> str:
  """How many are met, one line."""
  partly = [w.number for w in WISHES if w.limit]
  return (f"{len(WISHES)} wishes: {len(WISHES) - len(partly)} met, {len(partly)} met in part "
          f"({', '.join(map(str, partly))})")
