-- Objects that somebody waits for do not queue behind those that are only kept in step; held suspensions are counted together.
alter table lms_object add column awaited boolean not null default false;   -- somebody missed it, and the LMS was not seen to have it since
create index lms_object_awaited on lms_object (target, next_at) where next_at is not null and (awaited or moves_to is not null);
create index lms_object_held on lms_object (target, tenant) where state = 'held';
