-- Replays by any scope: planned first, applied by the plan's digest, cancelled, and no faster than allowed.

-- What a replay reads of the log; nothing for one that works from the ledger.
create table replay_range (
  replay uuid not null references replay on delete cascade,
  topic text not null,
  "partition" int not null,
  topic_id text not null,
  first bigint not null,
  last bigint not null,              -- inclusive, never past the log's end at the time of the call
  next bigint not null,              -- progress
  primary key (replay, topic, "partition")
);
insert into replay_range select replay, topic, "partition", topic_id, first, last, next from replay;

alter table replay
  add column scope jsonb,            -- as it was asked for, see replay_scopes.Scope
  add column plan uuid unique references replay,  -- the plan that this one applies
  add column total bigint,           -- offsets or seats in the scope when it was asked for
  add column done bigint not null default 0,
  add column after_target text not null default '',  -- progress through the seats of the ledger: the last one
  add column after_seat text not null default '',
  add column digest text,            -- of a plan that is done: over what would change
  add column changes bigint;         -- of a plan that is done: how much that is
update replay
   set scope = jsonb_build_object('offsets', jsonb_build_object('topic', topic, 'partition', "partition", 'from', first, 'to', last)),
       total = last - first + 1, done = next - first;
alter table replay
  alter column scope set not null, alter column total set not null,
  drop column topic, drop column topic_id, drop column "partition", drop column first, drop column last, drop column next,
  drop constraint replay_state_check,
  add constraint replay_state_check check (state in ('running', 'done', 'failed', 'cancelled'));
create index replay_running on replay (created_at) where state = 'running';
comment on column replay.dry_run is 'a plan: gives verdicts and changes nothing';

-- One row per offset of the log, or per seat of the ledger.
alter table replay_record rename to replay_line;
alter table replay_line drop constraint replay_record_pkey;
alter table replay_line
  add column line bigint,            -- counts from 1
  add column "partition" int,
  add column target text,
  add column seat text,
  alter column "offset" drop not null;
update replay_line
   set line = replay_line."offset" - replay_range.first + 1, "partition" = replay_range."partition"
  from replay_range where replay_range.replay = replay_line.replay;
alter table replay_line add primary key (replay, line);

-- What a plan would change, as it is shown and as its digest covers it.
create table replay_change (
  replay uuid not null references replay on delete cascade,
  number bigint not null,            -- counts from 1
  subject jsonb not null,            -- a seat, or an entity that the ledger lacks or has in an older version
  facts jsonb not null,
  primary key (replay, number)
);

-- One row: before this moment no replay opens further seats.
create table replay_pace (
  only_row boolean primary key default true check (only_row),
  next_at timestamptz not null
);
