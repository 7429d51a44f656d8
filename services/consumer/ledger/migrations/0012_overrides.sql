-- Overrides: a registrar's exceptions, which outrank the student system until their end.

create sequence override_id;
create table override (
  tenant text not null,
  override bigint not null default nextval('override_id'),
  person text not null,
  section text not null,             -- section key text
  role text not null,                -- as the student system calls it; the policy says which role of the LMS that is
  state text not null check (state in ('active', 'inactive', 'completed', 'deleted')),
  reason text not null,              -- the registrar's own words: shown, never logged
  actor text not null,
  made_at timestamptz not null default clock_timestamp(),
  ends_at timestamptz not null check (ends_at > made_at),
  withdrawn_at timestamptz,
  withdrawn_by text,
  withdrawn_reason text,
  ended_at timestamptz,              -- set by whoever first decides the person without it; from then on nobody decides with it
  primary key (tenant, override),
  check ((withdrawn_at is null) = (withdrawn_by is null) and (withdrawn_at is null) = (withdrawn_reason is null))
);
create unique index override_once on override (tenant, person, section, role) where ended_at is null;
create index override_section on override (tenant, section);
create index override_due on override (ends_at) where ended_at is null;
