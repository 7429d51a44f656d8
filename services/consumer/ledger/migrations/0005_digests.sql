-- Comparing the ledger with the mirror's digests.

-- Ranges of keys mean the same in both databases, whatever the collation of either.
create index entity_in_order on entity (tenant collate "C", kind collate "C", key collate "C");

-- The publisher shall emit current state again: written with what made it necessary, deleted when it is in the topic of returns.
create table republish_wish (
  request uuid primary key,
  scope jsonb not null,              -- see schemas.returns.Scope
  reason text not null,
  sending boolean not null default false,  -- may be in the topic already: a later wish for the same is another one
  at timestamptz not null default clock_timestamp()
);
create unique index republish_wish_once on republish_wish (scope) where not sending;

-- What a digest says otherwise than the ledger, and how often the publisher was told. Gone when both agree.
create table digest_difference (
  tenant text collate "C" not null,
  kind text collate "C" not null,
  key text collate "C" not null,
  difference text not null check (difference in ('missing_here', 'behind', 'ahead', 'hash', 'missing_there')),
  found_at timestamptz not null default clock_timestamp(),
  told int not null default 0,
  tell_at timestamptz not null default clock_timestamp(),  -- not again before
  primary key (tenant, kind, key)
);
create index digest_difference_told on digest_difference (told);

-- One row: how far the digests have been compared, and with what result.
create table digest_reading (
  only_row boolean primary key default true check (only_row),
  topic_id text not null,
  next bigint not null,
  round uuid,                        -- the round that is being read
  pages int not null default 0,      -- of it compared, in a row from its first
  differences int not null default 0,  -- in these pages; without what no repetition cures
  compared_at timestamptz,           -- the last complete round was compared
  wish uuid,                         -- a round that was asked for because of recovery mode
  wish_for timestamptz,              -- the recovery's `since`
  wish_at timestamptz,
  agreed_for timestamptz             -- the recovery for which such a round left no difference
);
