"""Control: the control socket's connections and requests, as the supervisor and http share them.

listening     the socket, made before privileges are dropped                 (``listening``)
connections   the supervisor accepts, reads the request, and hands over      (``connections``)
handover      accepted connections on their way to the http process          (``handover``)
requests      a request as a message, read alike by both                     (``requests``)
"""
