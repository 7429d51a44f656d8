-- Removals are counted by the channel that they came by as well.

alter table removal add column source text;                   -- null where nobody limited one
alter table hold drop constraint hold_scope_check;
alter table hold add constraint hold_scope_check check (
  scope in ('section', 'course', 'term', 'source', 'tenant', 'cancelled_section', 'cancelled_term', 'reused_section'));
