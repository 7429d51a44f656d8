-- Nothing reads these: an event is folded from the rows, and tells them. Whether somebody is there is all that is asked of an entity.
alter table entity add column status text;                    -- of the newest event
update entity set status = state ->> 'status';
alter table entity drop column state, drop column occurred_at, drop column accepted_at;
