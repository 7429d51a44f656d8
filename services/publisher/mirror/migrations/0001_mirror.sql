-- The mirror: the newest copy of each SIS row, the entities folded from them, and the outbox of events on their way to Kafka.

-- The newest copy of one SIS row under its natural key. Deleted rows stay as tombstones until their term is purged.
create table source_row (
  tenant text not null,
  record text not null,              -- for example STDNT_ENRL
  key text not null,                 -- natural key values, encoded and joined
  key_columns jsonb not null,
  entity_kind text not null,
  entity_key text not null,          -- the entity it is folded into
  columns jsonb not null,            -- allow-listed columns
  deleted boolean not null,
  channel text not null,
  incarnation text not null,
  "position" bigint,
  as_of_from timestamptz,
  as_of_to timestamptz,
  snapshot boolean not null default false,
  positions jsonb not null default '{}',  -- "channel\nincarnation" -> highest position seen; at or below it is a duplicate
  applied_version bigint not null,   -- the entity's version that first contained this state
  updated_at timestamptz not null default clock_timestamp(),
  primary key (tenant, record, key)
) with (fillfactor = 85);
create index source_row_entity on source_row (tenant, entity_kind, entity_key);

-- What the rows of one entity fold into. Locked before its source rows are read.
create table entity (
  tenant text not null,
  kind text not null,
  key text not null,
  version bigint not null default 0,
  published_version bigint not null default 0,
  content_hash text,                 -- null: created by a lock, nothing issued yet
  state jsonb,                       -- the event's state fields
  institution text,
  term text,
  section text,
  person text,
  occurred_at timestamptz,
  accepted_at timestamptz,
  updated_at timestamptz not null default clock_timestamp(),
  primary key (tenant, kind, key),
  check (published_version <= version)
) with (fillfactor = 85);
create index entity_section on entity (tenant, institution, term, section);
create index entity_person on entity (tenant, person);

-- Events that Kafka has not acknowledged yet (or whose deletion after the acknowledgement was lost: published twice, harmless).
create table outbox (
  tenant text not null,
  kind text not null,
  key text not null,
  version bigint not null,
  topic text not null,
  record_key bytea not null,
  headers jsonb not null,
  value bytea not null,
  created_at timestamptz not null default clock_timestamp(),
  attempts int not null default 0,
  dead_reason text,                  -- Kafka refused it for good; needs a person, no longer a reason for 503
  primary key (tenant, kind, key, version)
);
create index outbox_unpublished on outbox (created_at) where dead_reason is null;

-- What arrived and could not be used. Bytes that do not parse are encrypted (see docs/configuration.md); parsed rows are redacted.
create table quarantine (
  id uuid primary key,
  at timestamptz not null default clock_timestamp(),
  tenant text not null,
  channel text not null,
  reason text not null,
  detail text not null,              -- a path or a code, never a value
  body bytea,
  body_encrypted boolean not null,
  body_bytes int not null,
  digest text not null               -- of the body: the same poison sent again is one row
);
create unique index quarantine_once on quarantine (tenant, channel, digest, detail);

-- One row: the version floor of this mirror and the database it was true for.
create table mirror (
  only_row boolean primary key default true check (only_row),
  floor bigint not null,
  system_id text not null,
  timeline int not null,
  log_positions jsonb not null default '{}'  -- "topic/partition" -> next offset known to be folded
);
