import os

from tinytl.threads import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported
os.environ["TINYFIT_JOB_NICENESS"] = "0"  # the tests beside a job would leave it no time
