"""Everything about accelerators measured by one resumable command: `python -m benchmarks.gpu_campaign`.

__main__ is the command, `units` the list of what is measured in order of value, `work` the measurements that
no other benchmark has, `kernels` the profile, `tables` the Markdown.
"""
