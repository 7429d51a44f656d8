-- Undoing what we did between two times: overrides that belong together.

create table undo (
  tenant text not null,
  undo uuid not null,
  target text not null,
  scope jsonb not null,              -- see undo_plans.Scope
  from_at timestamptz not null,
  until_at timestamptz not null check (until_at > from_at),
  ends_at timestamptz not null,      -- of its overrides
  seats int not null,
  reason text not null,              -- a person's own words: shown, never logged
  actor text not null,
  made_at timestamptz not null default clock_timestamp(),
  withdrawn_at timestamptz,
  primary key (tenant, undo)
);
create index undo_newest on undo (tenant, made_at desc);

alter table override add column undo uuid;
create index override_undo on override (tenant, undo) where undo is not null;

-- What happened between two times; rows come in the order of their times, so that a few pages tell where to look.
create index history_at on history using brin (at);
