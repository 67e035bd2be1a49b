"""UserError, and what says whether code outside the package may run: one of each for both packages.

data_pipelines.errors and .outside are leaves: this is the only module below the modes that may
import from data_pipelines.
"""

from data_pipelines.errors import UserError, line_of
from data_pipelines.outside import allow as allow_outside_code, check as check_outside_code

__all__ = ["UserError", "allow_outside_code", "check_outside_code", "line_of"]
