-- Telling the ledger what this mirror holds.

-- Ranges of keys mean the same in both databases, whatever the collation of either.
create index entity_in_order on entity (tenant collate "C", kind collate "C", key collate "C");

-- Rounds of digests that somebody waits for; gone when a round that began afterwards has ended.
create table digest_request (
  id uuid primary key,
  reason text not null,
  at timestamptz not null default clock_timestamp()
);

-- One row: when the last round ended.
create table digest_round (
  only_row boolean primary key default true check (only_row),
  ended_at timestamptz not null
);
