-- Where we may write, and how the ledger compares with the rosters of the LMS.

-- Whether the driver may change anything in a term. A term without a row is as the target's row (an empty term) says; without that
-- one it is live. In shadow everything is decided, and nothing is applied.
create table writing (
  target text not null,
  term text not null,                                         -- institution/term
  live boolean not null,
  reason text not null,
  actor text not null,
  since timestamptz not null default clock_timestamp(),
  primary key (target, term)
);

-- The seats of one section, whoever they belong to.
create index seat_lms_section on seat (target, lms_section);

-- One comparison with the rosters of all sections in its scope.
create table roster_run (
  target text not null,
  run uuid not null,
  scope jsonb not null,                                       -- see rosters.runs.Scope
  repair boolean not null,                                    -- differences are repaired as the policy says; else only told
  state text not null default 'running' check (state in ('running', 'done', 'cancelled')),
  repairs int not null default 0,                             -- seats that were opened again or taken over
  actor text not null,
  created_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  check ((state = 'running') = (finished_at is null)),
  primary key (target, run)
);
create unique index roster_run_one on roster_run (target) where state = 'running';
create index roster_run_newest on roster_run (target, created_at desc, run);

create table roster_section (
  target text not null,
  run uuid not null,
  lms_section text not null,                                  -- SIS id of the section as the LMS knows it
  tenant text not null,
  section text not null,                                      -- section key text
  state text not null default 'open' check (state in ('open', 'read', 'missing', 'failed')),
  code text,                                                  -- of failed: the outcome's label, and its own code
  attempts int not null default 0,
  next_at timestamptz not null default clock_timestamp(),
  people int,                                                 -- rows of the roster
  differences int,
  untold int,                                                 -- seats of which it says nothing: in motion, at work, unreadable
  read_at timestamptz,                                        -- when the reading began
  primary key (target, run, lms_section),
  foreign key (target, run) references roster_run on delete cascade
);
create index roster_section_open on roster_section (target, run, next_at) where state = 'open';

-- What the newest reading of a section showed otherwise than the ledger. Gone when a later one shows it no more.
create table roster_finding (
  target text not null,
  lms_section text not null,
  subject text not null,                                      -- a seat, or a row of the LMS that is none of ours
  kind text not null check (kind in ('missing', 'wrong_state', 'wrong_role', 'extra_manual', 'extra_sis', 'unknown_user')),
  tenant text not null,
  section text not null,                                      -- section key text
  term text not null,                                         -- institution/term
  person text,                                                -- SIS id; null when nobody knows it
  lms_user text,                                              -- SIS id as the LMS shows it
  role text not null,
  base_role text not null,
  desired text,                                               -- null of a row that is none of ours
  shown text not null,
  shown_role text,                                            -- of wrong_role: the one that the LMS has instead
  confirmed boolean not null,                                 -- the LMS had it as wanted: somebody changed it since
  lms_enrollment text,
  lms_course text,
  seat text,                                                  -- once a seat of ours stands for it
  found_at timestamptz not null default clock_timestamp(),    -- first
  read_at timestamptz not null,                               -- last
  repair_at timestamptz,                                      -- it was given to the driver
  number bigint generated always as identity,
  primary key (target, lms_section, subject)
);
create index roster_finding_kind on roster_finding (target, term, kind, number);
create index roster_finding_repaired on roster_finding (target) where repair_at is not null;
