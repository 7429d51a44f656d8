-- The ledger: what the SIS wants (entity, entitlement), what each seat of the LMS should be and is (seat),
-- what is left to do (work, dependency, intent), and how it came about (history, audit).
-- Every key starts with the tenant, a seat's with its target; nothing spans tenants, so that the tables can be distributed.

-- One row per person that has ever been decided: the lock that every deciding transaction takes first (sorted).
create table person (
  tenant text not null,
  person text not null,
  primary key (tenant, person)
);

-- The newest event of each entity.
create table entity (
  tenant text not null,
  kind text not null check (kind in ('enrollment', 'person', 'section', 'course', 'term')),
  key text not null,
  person text,                       -- enrollment, person
  section text,                      -- section key text, of enrollments: "institution/term/section"
  version bigint not null check (version > 0),
  content_hash text not null,
  event jsonb not null,
  topic text not null,
  "partition" int not null,
  "offset" bigint not null,
  accepted_at timestamptz not null,
  received_at timestamptz not null default clock_timestamp(),
  primary key (tenant, kind, key)
) with (fillfactor = 85);
create index entity_person on entity (tenant, person) where kind = 'enrollment';
create index entity_section on entity (tenant, section) where kind = 'enrollment';

-- What one entity gives one seat. One entity may move from seat to seat (another role, another template).
create table entitlement (
  tenant text not null,
  kind text not null,
  key text not null,                 -- the entity
  target text not null,
  seat text not null,
  person text not null,
  state text not null check (state in ('active', 'inactive', 'completed', 'deleted')),
  version bigint not null,           -- the entity's version that decided it
  decide_again_at timestamptz,
  primary key (tenant, kind, key, target, seat)
) with (fillfactor = 85);
create index entitlement_seat on entitlement (target, seat);
create index entitlement_person on entitlement (tenant, person);

-- One seat of the LMS: (section, user, role, associated user) at one target. `seat` is those four, encoded and joined.
create table seat (
  target text not null,
  seat text not null,
  tenant text not null,
  person text not null,              -- SIS id
  section text not null,             -- section key text
  course text,                       -- course key text, null while the SIS has not said
  lms_section text not null,         -- SIS ids as the LMS knows them, from the policy's templates
  lms_user text not null,
  role text not null,                -- the LMS's role label
  base_role text not null,           -- the LMS's base type of that role
  associated_user text not null default '',
  desired text not null check (desired in ('active', 'inactive', 'completed', 'deleted')),
  effect text not null check (effect in ('add', 'drop', 'update')),  -- of the newest decision, for freshness
  version bigint not null,           -- the entity version behind `desired`
  decision bigint not null default 1,  -- counts the changes of `desired`
  policy_version int not null,
  accepted_at timestamptz not null,  -- of the change behind `desired`
  applied text not null default 'unknown' check (applied in ('unknown', 'absent', 'active', 'inactive', 'completed', 'deleted', 'other')),
  applied_version bigint,
  applied_at timestamptz,
  origin text check (origin in ('ours', 'adopted', 'foreign')),
  lms_enrollment text,
  lms_course text,
  suspect_until timestamptz,         -- a call's outcome was unknown: only a read that starts later settles the seat
  mark bigint not null default 0,    -- counts the calls of unknown outcome; a clearing read must have seen this number
  fence text,                        -- the unfinished import that holds the seat; unused until imports exist
  primary key (target, seat)
) with (fillfactor = 85);
create index seat_person on seat (tenant, person);

-- One row per unsettled seat, deleted when it settles.
create table work (
  target text not null,
  seat text not null,
  tenant text not null,
  person text not null,
  course text,
  state text not null check (state in ('pending', 'retrying', 'waiting', 'held', 'dead', 'suspect')),
  priority smallint not null,        -- 0 drop, 1 instructor, 2 add, 3 claim, 4 repair
  next_at timestamptz not null,      -- not before; of a waiting row its timer
  attempts int not null default 0,
  reason text,                       -- outcome class of the last attempt
  waits_kind text check (waits_kind in ('user', 'section')),
  waits_object text,
  read_first boolean not null default false,  -- recovery or verify: read before the next write, whatever `applied` says
  created_at timestamptz not null default clock_timestamp(),
  primary key (target, seat),
  check ((state = 'waiting') = (waits_kind is not null)),
  check ((waits_kind is null) = (waits_object is null))
) with (fillfactor = 70);
create index work_ready on work (target, priority, next_at) where state in ('pending', 'retrying', 'suspect', 'waiting');
create index work_person on work (target, person);
create index work_waits on work (target, waits_kind, waits_object) where state = 'waiting';

-- One row per object that the LMS lacks, with one probe schedule.
create table dependency (
  target text not null,
  kind text not null check (kind in ('user', 'section')),
  object text not null,              -- SIS id as the LMS would know it
  state text not null check (state in ('missing', 'resolved')),
  since timestamptz not null default clock_timestamp(),
  resolved_at timestamptz,
  probes int not null default 0,
  next_probe_at timestamptz not null,
  primary key (target, kind, object)
);
create index dependency_due on dependency (target, next_probe_at) where state = 'missing';

-- Who may call a target. Taken over only when expired or released; the epoch never repeats, not even after a restore.
create table lease (
  target text primary key,
  owner text not null,
  epoch bigint not null,
  expires_at timestamptz not null
);

-- Written (and committed for good) before each call, closed with its outcome.
create table intent (
  target text not null,
  intent uuid not null,
  seat text not null,
  tenant text not null,
  person text not null,
  owner text not null,
  epoch bigint not null,
  call text not null check (call in ('read', 'write')),
  wanted text not null,
  version bigint not null,
  decision bigint not null,
  mark bigint not null,
  opened_at timestamptz not null default clock_timestamp(),
  deadline timestamptz not null,     -- latest send time + call timeout; a successor waits it out
  closed_at timestamptz,
  outcome text,
  primary key (target, intent)
);
create unique index intent_one_open_per_person on intent (target, person) where closed_at is null;
create index intent_open on intent (target, deadline) where closed_at is null;
create index intent_closed on intent (closed_at) where closed_at is not null;

-- Append-only: every event, decision, call and its proof. References and codes, no names. One partition per month.
create table history (
  at timestamptz not null default clock_timestamp(),
  tenant text not null,
  person text not null,
  section text,
  target text,
  seat text,
  what text not null,                -- received, superseded, decided, intent, outcome, settled, waiting, woken, dead, reopened, ...
  kind text,
  key text,
  version bigint,
  topic text,
  "partition" int,
  "offset" bigint,
  detail jsonb
) partition by range (at);
create table history_default partition of history default;
create index history_person on history (tenant, person, at);
create index history_record on history (topic, "partition", "offset");

-- Where intake continues, per topic id and partition: the ledger's offset always wins over Kafka's.
create table intake_offset (
  topic_id text not null,
  topic text not null,
  "partition" int not null,
  next bigint not null check (next >= 0),
  updated_at timestamptz not null default clock_timestamp(),
  primary key (topic_id, "partition")
);

-- Goes up with every intake transaction and every batch of outcomes; Kafka's commit metadata carries it. A ledger whose
-- counter is below the committed one has lost history.
create sequence activity;

-- One row: whether the ledger may trust what it remembers.
create table recovery (
  only_row boolean primary key default true check (only_row),
  active boolean not null,
  reason text not null,
  since timestamptz not null default clock_timestamp(),
  system_id text not null,
  timeline int not null
);

create table policy (
  tenant text not null,
  version int not null,
  body text not null,                -- the registrar's YAML, verbatim
  digest text not null,
  active boolean not null,
  created_at timestamptz not null default clock_timestamp(),
  actor text not null,
  redecided_upto text not null default '',  -- the last person decided again under this version; it goes on behind them
  redecided_at timestamptz,          -- null until everybody has been
  primary key (tenant, version)
);
create unique index policy_one_active on policy (tenant) where active;

-- Records whose values only a newer reader knows; released by the upgrade.
create table parked (
  topic_id text not null,
  topic text not null,
  "partition" int not null,
  "offset" bigint not null,
  key bytea,
  value bytea not null,
  reason text not null,
  at timestamptz not null default clock_timestamp(),
  primary key (topic_id, "partition", "offset")
);

create table audit (
  at timestamptz not null default clock_timestamp(),
  id uuid primary key,
  actor text not null,
  action text not null,
  outcome text not null,
  detail jsonb not null
);

create table replay (
  replay uuid primary key,
  topic text not null,
  topic_id text not null,
  "partition" int not null,
  first bigint not null,
  last bigint not null,              -- inclusive, never past the log's end at the time of the call
  next bigint not null,              -- progress
  dry_run boolean not null,
  verify boolean not null,
  state text not null check (state in ('running', 'done', 'failed')),
  reason text,
  actor text not null,
  owner text,                        -- the process that runs it; null when nobody does
  owned_until timestamptz,           -- another process may take it over afterwards
  created_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz
);
create unique index replay_one_running on replay (topic, "partition") where state = 'running';
create index replay_newest on replay (created_at desc, replay);

-- One row per offset of the range.
create table replay_record (
  replay uuid not null references replay on delete cascade,
  "offset" bigint not null,
  verdict text not null check (verdict in (
    'reopened', 'already_satisfied', 'superseded', 'undecodable', 'parked', 'hash_alarm', 'expired', 'absent', 'no_seat')),
  reason text,                       -- of undecodable and parked: a closed code or a field name, never a value
  tenant text,
  kind text,
  key text,
  version bigint,
  superseded_by bigint,              -- version
  superseded_at_offset bigint,
  primary key (replay, "offset")
);
