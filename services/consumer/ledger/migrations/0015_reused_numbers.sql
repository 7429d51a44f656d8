-- Which course's class a section's number stands for, as far as it is agreed; a number that was given to another class is not, until a
-- person has looked.

create table section_course (
  tenant text not null,
  section text not null,             -- section key text
  course text not null,              -- as the SIS writes it: agreed
  reused_as text check (reused_as <> course),  -- and what the SIS says by now; null: the same
  primary key (tenant, section)
);
create index section_course_reused on section_course (tenant, section) where reused_as is not null;
insert into section_course (tenant, section, course)
select tenant, key, event ->> 'course' from entity where kind = 'section' and event ->> 'course' is not null;

alter table hold drop constraint hold_scope_check;
alter table hold add constraint hold_scope_check check (
  scope in ('section', 'course', 'term', 'tenant', 'cancelled_section', 'cancelled_term', 'reused_section'));
alter table hold add column was_course text;                  -- of a re-used number: the class that it stood for ...
alter table hold add column is_course text;                   -- ... and the one that it stands for
