"""UserError for medae_jax: the class of data_pipelines (one class for both packages).

data_pipelines.errors is a leaf without imports: this is the only module below the modes that may
import from data_pipelines.
"""

from data_pipelines.errors import UserError

__all__ = ["UserError"]
