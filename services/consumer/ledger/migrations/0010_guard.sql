-- The guard: a removal waits until it was counted, and what would be too much at once waits for a person.

alter table work drop constraint work_state_check;
alter table work add constraint work_state_check
  check (state in ('pending', 'retrying', 'waiting', 'guarded', 'held', 'dead', 'suspect'));
alter table work add column cleared bigint;                   -- the seat's decision whose removal may be sent
alter table work add column hold bigint;                      -- the hold that the removal is in
alter table work add column hold_number bigint;               -- its place in the order in which removals were held
create index work_guarded on work (target, seat) where state = 'guarded';
create index work_hold on work (target, hold, hold_number) where hold is not null;
-- Removals that were under way when the guard came: they are counted like any other.

-- One row per target. Who counts, approves or pauses locks it first.
create table guard (
  target text primary key,
  paused boolean not null default false,                      -- nothing is let through
  paused_reason text,
  sizes_at timestamptz                                        -- when `guard_size` was counted; null: never
);

-- How many seats give access, to compare removals with; counted now and then.
create table guard_size (
  target text not null,
  tenant text not null,
  section text not null,                                      -- section key text
  term text not null,                                         -- institution/term
  course text,
  active int not null,
  gained int not null,                                        -- that should give access since a change of the last 15 minutes
  primary key (target, tenant, section)
);

-- Removals that were let through, for the windows in which they count. Kept for a day.
create table removal (
  target text not null,
  at timestamptz not null default clock_timestamp(),
  seat text not null,
  decision bigint not null,
  tenant text not null,
  section text not null,
  course text,
  leaves_course boolean not null,                             -- the person has no other seat in the course
  how text not null check (how in ('counted', 'cancelled', 'planned', 'approved'))
);
create index removal_at on removal (target, at);

create sequence held_number;
create sequence hold_id;
create table hold (
  target text not null,
  hold bigint not null default nextval('hold_id'),
  tenant text not null,
  scope text not null check (scope in ('section', 'course', 'term', 'tenant', 'cancelled_section', 'cancelled_term')),
  key text not null,                                          -- of the section, course or term; empty for the tenant
  "window" text check ("window" in ('quarter_hour', 'day')),
  removals int not null,                                      -- counted when it was opened ...
  active int not null,                                        -- ... of so many seats that gave access
  gained int not null,                                        -- seats in its scope that were given shortly before
  allowed text not null,                                      -- the limit that was reached, as the policy has it
  state text not null default 'open' check (state in ('open', 'approved', 'discarded', 'emptied')),
  opened_at timestamptz not null default clock_timestamp(),
  closed_at timestamptz,
  approved int not null default 0,                            -- removals that a person let go
  check ((state = 'open') = (closed_at is null)),
  primary key (target, hold)
);
create unique index hold_open on hold (target, tenant, scope, key) where state = 'open';

-- Removals that were announced: not counted, within their bounds.
create table planned_change (
  target text not null,
  planned uuid not null,
  tenant text not null,
  scope text not null check (scope in ('section', 'course', 'term', 'tenant')),
  key text not null,
  from_at timestamptz not null,
  until_at timestamptz not null check (until_at > from_at),
  most int not null check (most > 0),                         -- removals
  used int not null default 0 check (used <= most),
  reason text not null,
  actor text not null,
  created_at timestamptz not null default clock_timestamp(),
  withdrawn_at timestamptz,
  primary key (target, planned)
);
