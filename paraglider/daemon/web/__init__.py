"""Web: the stats page behind ``stats.bind``, served by the http process.

page      the page's part of the http process                           (``page``)
bound     its socket, bound before privileges are dropped               (``bound``)
token     what a browser needs to change anything                       (``token``)
feed      one status request a second, for all clients                  (``feed``)
sample    one answer with rates, shares and drains                      (``sample``)
history   the last quarter of an hour, in bounded memory                (``history``)
guard     checks of Host and Origin, security headers                   (``guard``)
routes    its requests                                                  (``routes``)
events    the stream of samples                                         (``events``)
csv       the same as a table, with HAProxy's columns                   (``csv_table``)
static    its files: no build step, uPlot with its licence              (``static/``)
"""
