"""Methods, one a file: its docstring gives the paper, the equations and the deviations.

config.method.name names the file, here or in the folder of a family (autoencoders). Files that begin with
an underscore are shared by one or two methods and are no methods themselves.
"""
