# The compiled twin has the interface of the interpreted one.
from paraglider.system.queue.batch import Batch as Batch
