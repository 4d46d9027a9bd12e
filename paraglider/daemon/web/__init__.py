"""Web: the process behind ``stats.bind``, which shows what the balancer does.

process   a child of the supervisor without rights                      (``process``)
bound     its socket, bound before privileges go                        (``bound``)
token     what a browser must know to change anything                   (``token``)
feed      the hub is asked once a second, for all readers together      (``feed``)
sample    one answer of the hub with rates, shares and drains           (``sample``)
history   the last quarter of an hour, in bounded memory                (``history``)
guard     Host, Origin, and the headers that browsers go by             (``guard``)
routes    the table of what can be asked                                (``routes``)
events    the stream of samples                                         (``events``)
csv       the same as a table, with HAProxy's columns                   (``csv_table``)
static    the page itself: no build step, uPlot with its licence        (``static/``)
"""
