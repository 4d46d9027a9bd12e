"""Web: the page behind ``stats.bind``, which the http process serves.

page      the page as the http process has it                           (``page``)
bound     its socket, bound before privileges are dropped               (``bound``)
token     what a browser needs to change anything                       (``token``)
feed      the supervisor is asked once a second, for all readers        (``feed``)
sample    one answer with rates, shares and drains                      (``sample``)
history   the last quarter of an hour, in bounded memory                (``history``)
guard     Host, Origin, and the headers that browsers go by             (``guard``)
routes    its requests                                                  (``routes``)
events    the stream of samples                                         (``events``)
csv       the same as a table, with HAProxy's columns                   (``csv_table``)
static    its files: no build step, uPlot with its licence              (``static/``)
"""
