-- Full extracts: which ones came and what became of them. No row of this table names a person.
create table snapshot (
  id uuid primary key,
  tenant text not null,
  kind text not null,                -- a key of translate.extract.KINDS
  institution text not null,
  term text not null,
  channel text not null,             -- snapshot:<caller>
  started_at timestamptz not null,   -- when the extract's query began
  ended_at timestamptz not null,
  received_at timestamptz not null,
  digest text not null,              -- SHA-256 of the file
  bytes bigint not null,
  state text not null check (state in ('receiving', 'refused', 'held', 'applying', 'applied', 'superseded')),
  reason text,
  detail text,
  rows bigint not null default 0,
  unusable bigint not null default 0,    -- rows that are in quarantine
  absent bigint,                     -- mirror rows that the extract lacks; null: nothing is concluded from absence
  total bigint not null default 0,   -- the last number in snapshot_row
  done bigint not null default 0,    -- the last number that is in the mirror
  changed bigint not null default 0,
  approved_by text,                  -- the operator's name in the credentials file
  closed_at timestamptz,
  worker uuid,                       -- the process that applies it
  worker_until timestamptz           -- and until when others leave it alone
);
create unique index snapshot_one_at_a_time on snapshot (tenant, kind, institution, term) where state = 'applying';
create index snapshot_scope on snapshot (tenant, kind, institution, term, started_at);
create index snapshot_open on snapshot (received_at) where state in ('receiving', 'held', 'applying');

-- What an extract says, until it is in the mirror. Logged like any table: rows that a crash lost would look like people who left.
create table snapshot_row (
  snapshot uuid not null,
  number bigint not null,
  says text not null check (says in ('present', 'absent', 'unusable')),
  record text not null,
  key text not null,                 -- as in source_row
  key_columns jsonb,
  columns jsonb,
  entity_kind text,
  entity_key text,
  deleted boolean not null,
  primary key (snapshot, number)
);
create index snapshot_row_key on snapshot_row (snapshot, record, key);
