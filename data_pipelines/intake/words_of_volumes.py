"""Words that names of volumes of brains are made of: labels, maps, sequences that no model here has."""

from __future__ import annotations

from collections.abc import Collection
import re

LABEL_ENDINGS = ("seg", "mask", "label", "labels", "segmentation", "segm", "msk", "ground_truth",
                 "groundtruth", "gt")
# Endings of truth and of our own results.
NOT_INPUT = (*LABEL_ENDINGS, "truth", "dseg", "probseg", "anomaly", "overlay")
# What labels are called besides, and words before their endings (P01_tumor_seg, P01_consensus_gt).
FINDINGS = {"lesion", "lesions", "tumor", "tumour", "wmh"}
BETWEEN = FINDINGS | {"manual", "consensus", "expert", "whole"}
LIKE_LABELS = {*LABEL_ENDINGS, *FINDINGS, "truth", "dseg", "manual", "consensus", "roi", "annotation",
               "annotations", "contour", "delineation"}
# After the name of the scan these, too, perhaps numbered (mask1, rater2): parts of a tumour, who drew it.
MARKED = {*LIKE_LABELS, "rater", "reader", "expert", "observer", "les", "wt", "tc", "et", "core", "ncr",
          "necrosis", "enhancing"}
# A name of these alone is one of a label: ground_truth_expert1.
ALONE = MARKED | {"ground", "manualsegmentation", ""}
# Of masks that mark no lesion, where no word of FINDINGS says that they do.
NO_LESION = {"brain", "brainmask", "bet", "skull", "head", "tissue", "wm", "gm", "csf", "ventricles", "aseg",
             "aparc", "wmparc", "ribbon", "face", "deface", "cortex", "hippocampus", "fov"}
WITHIN = re.compile("lesion|tumou?r|wmh|gtv|infarct|stroke|o?edema|metasta|ha?ematoma|ha?emorrhage|glioma")
# Of labels wherever they stand in a name that tells no sequence, what FreeSurfer and FSL write among them.
MAPS = {*LABEL_ENDINGS, "truth", "aseg", "aparc", "aparc+aseg", "wmparc", "ribbon", "brainmask", "pve",
        "pveseg", "mixeltype", "probseg", "dseg"}
TISSUES = {"gm", "wm", "csf", "tissue", "tissues", "ventricles", "atlas", "parcellation"}  # at the end
WRITTEN_TOGETHER = re.compile(r".+(?:mask|lesions?|segm?|segmentation|labels?|annotations?)")  # FLAIRmask
ENDS_AS_LABEL = re.compile(r".*(?:masks?|segm?|segmentations?|labels?)")  # fseg, brainmask
DRAWN = re.compile("(?:manual|consensus|expert)(?:masks?|segm?|segmentation|labels?)")  # ManualSeg

# Words of pictures that are none of KNOWN, though their descriptions may name one: "T2 star", "T1 map".
OTHER = {"star", "swi", "swan", "gre", "hemo", "dwi", "adc", "trace", "dti", "perf", "perfusion", "pwi",
          "dsc", "dce", "asl", "bold", "tof", "mra", "mrv", "mip", "map", "mapping", "loc", "localizer",
          "localiser", "scout", "survey", "sub", "subtraction", "screenshot", "phase"}
# Sequences and maps that stand for nothing else, wherever they stand in a name of a file.
CLEAR_OTHERS = OTHER - {"star", "trace", "sub", "map", "phase", "loc", "gre"} | {
    "t1map", "t2map", "t2star", "t1rho", "flairstar", "mtr", "cbf", "cbv", "pdw", "stir", "psir", "qsm",
    "rcbf", "rcbv", "mtt", "tmax", "ttp", "ktrans", "fdg", "suv", "cta", "ctp", "ncct", "fieldmap",
    "phasediff", "fmri", "rsfmri", "eadc", "adcmap", "famap", "colfa", "isodwi", "pcasl", "pasl", "pdt2",
    "t1flair", "fgatir", "wmn", "t2s", "tracew", "fet", "mton", "mtoff", "fisp", "trufi", "truefisp",
    "t1sub", "inv1", "inv2", "jacobian", "warpfield", "ciss", "fiesta",
    "medic", "mrcp", "r2star", "haste"}
# What programs compute of a scan and write beside it under its name: P01_flair_posteriors, P01_flair_ph.
_COMPUTED = {"prob", "probs", "probability", "softmax", "posterior", "posteriors", "uncertainty", "entropy",
             "variance", "recon", "reconstruction", "reconstructed", "residual", "residuals", "pred", "preds",
             "prediction", "heatmap", "gradcam", "saliency", "biasfield", "field", "warp", "disp",
             "displacement", "deformation", "jacobian", "tsnr", "snr", "edges", "dist", "diff", "difference",
             "zmap", "tmap", "ph", "real", "imaginary", "imag"}
# At the end of a name that tells a sequence: T1_map, T2_star.
AFTER = OTHER - {"gre", "trace", "loc"} | _COMPUTED | {"inv1", "inv2"}
# Of T1; and of T1 where a name tells nothing else (in a description they can be of T2*).
T1_READOUTS = ("mprage", "memprage", "mp2rage", "unit1", "spgr", "fspgr", "irfspgr", "bravo", "vibe",
               "starvibe")
# ADNI's names of it.
T1_OF_ADNI = re.compile(r"(?:.*[-_ .])?mr[-_](?:mpr|mt1|mp[-_]rage)(?:[-_ .].*)?")
# Names of a readout that T1, T2 and FLAIR share: with none of these beside it nobody knows what a volume is.
READOUTS = {"space", "spc", "cube", "vista", "brainview", "tse", "fse", "blade", "propeller"}
GRADIENT = {"flash", "fl2d", "fl3d", "tfl", "tfl3d", "tfe", "ffe"}
# At the end of a name; in a description FA is an angle, and elsewhere in a name these can be a person's.
OTHER_NAMES = OTHER | CLEAR_OTHERS | {
    "fa", "md", "pd", "pet", "ct", "dir", "uni", "epi", "b0", "b500", "b800", "b1000", "b2000", "b3000", "m0",
    "r2s", "magnitude", "mag", "field", "warp", "dist", "prob", "angio", "venous", "myelin", "amyloid", "tau",
    "dif", "diff"}
# Words of a description that tells no sequence: of series that are none of KNOWN.
_OTHER_SERIES = re.compile(r"b\d{1,4}|ep2d\w*|epfid\w*|epi|diff\w*|\w*angio\w*|veno\w*|calib\w*|cal|shim\w*|"
                           r"(?:topo|scano)gram|spectro\w*|perf\w*|svs|csi|tensor|pd|pet|ct|loc|mtc|report\w*|"
                           "screen|phase|trace")
CONTRAST = {"post", "gd", "gad", "gado", "gadolinium", "contrast", "ce", "c", "km", "enhanced"}
NO_CONTRAST = {"pre", "without", "wo", "non", "no", "native", "nativ", "ohne"}


def marks_last(scan: str) -> bool:
  """Whether the last word of a name, without its sequence, is one of labels: P01_LesionSeg of
  P01_LesionSeg_FLAIR. GT alone may be somebody."""
  *before, last = re.split(r"[-_ .]+", scan.lower())
  own = last in (*LABEL_ENDINGS, "truth", "dseg", "annotation", "annotations")
  return (own and bool(before or last != "gt")) or bool(WRITTEN_TOGETHER.fullmatch(last))


def has_agent(words: list[str], at: int) -> bool:
  """Whether the words of a name say that its T1, word `at`, is with an agent.

  Before it "post" and "c" can be a visit or part of the scan's name.
  """
  said = CONTRAST & set(words[at + 1:]) | (CONTRAST - {"post", "c", "enhanced"}) & set(words)
  return bool(said) and not NO_CONTRAST & set(words)


def other_series(words: Collection[str], modalities: Collection[str]) -> bool:
  """Whether a description that tells no sequence of `modalities` is of something else for sure: DWI, TOF.

  A gradient echo is T1 or T2*, and no FLAIR.
  """
  own = {m.lower() for m in modalities}
  some = CLEAR_OTHERS - own | (set() if own & {"t1", "t1ce", "t2"} else GRADIENT | {"gre"})
  return any(w in some or (w not in own and _OTHER_SERIES.fullmatch(w)) for w in words)


def readout(words: Collection[str]) -> str:
  """Why a name or description that tells no sequence is no input by a word of READOUTS, "" of others."""
  found = next((w for w in words if w in READOUTS), "")
  return found and (f"names a readout alone ({found}), which T1, T2 and FLAIR share: call it, or its folder, "
                    "<scan>_<sequence>")


def words_of(text: str) -> set[str]:
  """Words of a description, in small letters."""
  text = text.lower().replace("t2*", "t2 star").replace("w/o", "without").replace("dark-fluid", "darkfluid")
  words = re.split(r"[^a-z0-9]+", text.replace("dark fluid", "darkfluid").replace("dark_fluid", "darkfluid"))
  return set(filter(None, words))
