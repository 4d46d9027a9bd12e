# The compiled twins have the interfaces of the interpreted ones.
from paraglider.bpf.elements import Elements as Elements
from paraglider.bpf.elements import publish as publish
from paraglider.bpf.ring import Ring as Ring
