-- What the mirror has to know so that it can be rebuilt from the log, and so that one bad entity stops only itself.

-- A deletion that came before anything else was known of the row: a tombstone without an entity, for which an older copy is old news.
alter table source_row alter column entity_kind drop not null;
alter table source_row alter column entity_key drop not null;
alter table source_row add check ((entity_kind is null) = (entity_key is null));
alter table source_row add check (entity_kind is not null or deleted);

-- [{"kind", "key", "version"}]: what the row moved away from, as long as that event may be unpublished. An answer waits for it too.
alter table source_row add column left_entities jsonb not null default '[]';

-- The version of the event that this copy was read back from; null: the copy is this mirror's own, see applied_version.
alter table source_row add column seen_version bigint;

-- Why the newest rows of this entity could not be made into an event (a type of error); null: they could. Needs a person.
alter table entity add column unfoldable text;
create index entity_unfoldable on entity (tenant, kind, key) where unfoldable is not null;

-- Republishes: asked for by an operator, worked on by any process, gone on with after a restart.
create table republish (
  id uuid primary key,
  scope jsonb not null,
  total bigint not null,             -- entities in the scope when it was asked for
  done bigint not null default 0,
  after_kind text not null default '',
  after_key text not null default '',  -- the last entity that was emitted
  asked_at timestamptz not null default clock_timestamp(),
  worked_at timestamptz not null default clock_timestamp(),  -- the one that waits longest is next
  ended_at timestamptz,
  worker uuid,                       -- the process that works on it
  worker_until timestamptz           -- and until when others leave it alone
);
create index republish_open on republish (worked_at) where ended_at is null;
