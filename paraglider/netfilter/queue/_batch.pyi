# The compiled twin has the interface of the interpreted one.
from paraglider.netfilter.queue.batch import Batch as Batch
