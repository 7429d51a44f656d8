"""A faithful stand-in for the part of Canvas that an enrollment sync uses, over HTTP, with faults on demand.

Every modelled behaviour names the file of ``instructure/canvas-lms`` where it was read; what upstream does not settle is marked
as an assumption. State lives in memory and is gone when the process ends. How the parts fit together:

- `state` has the rows, `world` their indexes, `dates` says what is effective now, `addressing` finds objects by Canvas or SIS id;
- `enrolling`, `leaving`, `observing` and `sticky` hold the rules of enrollments, without any HTTP;
- `routes` answers requests through `rendering` and `paging`, behind `throttle`, `tokens` and `faults` (put together in `app`);
- `writelog` and `violations` remember what was done to an enrollment and what should never have been done; `journal` and
  `latest_calls` keep what has just happened, for the `page` at ``/``;
- `control` is the other side: `seeding` and `population`, others' acts (`interference`), faults, `dump` and snapshots, the log.
  `client.CanvasControl` speaks to it, `server.CanvasServer`
  runs everything in a thread, and ``python -m services.sandbox canvas`` in a process.
"""
