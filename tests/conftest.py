import os

from tinytl.threads import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported
