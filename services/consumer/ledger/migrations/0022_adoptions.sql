-- Differences that the policy has adopted: marked where a roster is recorded, made overrides in transactions of their own.

-- One seat that is to be what the LMS shows. Gone with its difference, so that what a later reading shows no more is not adopted.
create table roster_adoption (
  target text not null,
  lms_section text not null,
  subject text not null,             -- of the difference; a wrong role is two seats
  seat text not null,                -- its key; the ledger need not have it yet
  role text not null,
  base_role text not null,
  shown text not null,
  lms_enrollment text,
  lms_course text,
  run uuid not null,                 -- the comparison that found it
  until timestamptz not null,        -- the end of the override
  primary key (target, lms_section, subject, seat),
  foreign key (target, lms_section, subject) references roster_finding on delete cascade
);
