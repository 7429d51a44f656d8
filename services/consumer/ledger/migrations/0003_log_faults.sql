-- What the intake needs to say, and to remember, when the log or its records are not as they should be.

-- The log under the ledger lost something (it was trimmed, cut or made anew): recovery mode ends only after the mirror and the
-- ledger were compared and found to agree.
alter table recovery add column log_lost boolean not null default false;

-- The line stopped: more records of a partition than is believable would have gone to the dead letters.
create table intake_stop (
  topic_id text not null,
  topic text not null,
  "partition" int not null,
  "offset" bigint not null,          -- the record that would have been one too many
  bad bigint not null,               -- so many ...
  seen bigint not null,              -- ... of the last so many
  reason text not null,              -- the most frequent reason of the dead letters
  at timestamptz not null default clock_timestamp(),
  divert_before bigint,              -- a person said: records below this offset may go to the dead letters
  primary key (topic_id, "partition")
);

create index parked_at on parked (at);
