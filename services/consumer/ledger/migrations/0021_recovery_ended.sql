-- What a restored ledger never knew of, only the rosters of the LMS can tell: they are read when recovery is over.

alter table recovery add column ended_at timestamptz;
