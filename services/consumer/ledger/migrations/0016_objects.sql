-- Objects of the LMS that we make or keep as the SIS has them: terms, courses, sections, people. What they should be is computed from
-- the newest events whenever it is needed; a row says how far we are, and keeps no name of anybody.
create table lms_object (
  target text not null,
  kind text not null check (kind in ('term', 'course', 'section', 'person')),
  object text not null,                                       -- SIS id as the LMS knows it
  tenant text not null,
  key text not null,                                          -- key text of the entity that says what it should be
  person text,                                                -- of a person
  section text,                                               -- of the others: key text of the section that somebody wanted it for
  term text,                                                  -- institution/term of that section
  state text not null default 'pending'
    check (state in ('pending', 'retrying', 'waiting', 'held', 'refused', 'suspect', 'settled')),
  reason text,                                                -- why it is not settled, from a closed list
  next_at timestamptz default clock_timestamp(),              -- null: only an event or another policy brings it back
  attempts int not null default 0,
  heard bigint not null default 0,                            -- counts what may have changed what it should be
  waits_kind text,                                            -- the object that it has to be made in
  waits_object text,
  lacks_kind text,                                            -- the entity that the SIS has not told
  lacks_key text,
  ask_at timestamptz,                                         -- when the publisher is asked for it next
  lms_id text,
  origin text check (origin in ('ours', 'found')),
  confirmed jsonb not null default '{}',                      -- attribute -> fingerprint of the value that we wrote last
  kept text[] not null default '{}',                          -- attributes that somebody else has set, and that stay so
  call text check (call in ('make', 'change')),               -- may be under way until call_until
  call_until timestamptz,
  making boolean not null default false,                      -- an earlier call to make it may have been carried out
  suspect_until timestamptz,                                  -- an earlier call may land until then
  suspends boolean not null default false,                    -- of a person whom the SIS removed and whose login is to be suspended
  suspended_at timestamptz,
  moves_to text,                                              -- of a person whom the SIS keeps under another id: that one, until it is so
  created_at timestamptz not null default clock_timestamp(),
  state_since timestamptz not null default clock_timestamp(),
  number bigint generated always as identity,
  check ((call is null) = (call_until is null)),
  check ((waits_kind is null) = (waits_object is null)),
  check ((lacks_kind is null) = (lacks_key is null)),
  primary key (target, kind, object)
) with (fillfactor = 85);
create index lms_object_due on lms_object (target, next_at) where next_at is not null;
create index lms_object_called on lms_object (target, call_until) where call_until is not null;
create index lms_object_entity on lms_object (tenant, kind, key);
create index lms_object_lacks on lms_object (tenant, lacks_kind, lacks_key) where lacks_key is not null;
create index lms_object_waits on lms_object (target, waits_kind, waits_object) where waits_object is not null;
create index lms_object_suspends on lms_object (target) where suspends or suspended_at is not null;
create index lms_object_moves on lms_object (target, moves_to) where moves_to is not null;
create index lms_object_number on lms_object (target, number);

-- Whether the object that seats wait for was handed to those who make objects, since it went missing.
alter table dependency add column noted boolean not null default false;
create index dependency_unnoted on dependency (target, kind) where state = 'missing' and not noted;
