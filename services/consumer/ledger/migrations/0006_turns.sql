-- Work is looked at by priority, then term by term, so that a backlog of one term does not hold up another one's changes. What
-- waits for a missing object is not looked at: its object is asked for, and its timer has an index of its own.

alter table work add column term text;  -- institution/term of the seat's section
update work set term = split_part(seat.section, '/', 1) || '/' || split_part(seat.section, '/', 2)
  from seat where (seat.target, seat.seat) = (work.target, work.seat);
alter table work alter column term set not null;

create function fill_term() returns trigger language plpgsql as $$
begin
  new.term := coalesce((select split_part(section, '/', 1) || '/' || split_part(section, '/', 2)
                          from seat where (target, seat) = (new.target, new.seat)), '');
  return new;
end $$;
create trigger fill_term before insert on work for each row when (new.term is null) execute function fill_term();

drop index work_ready;
create index work_turn on work (target, priority, term, next_at) where state in ('pending', 'retrying', 'suspect');
create index work_timer on work (target, next_at) where state = 'waiting';
create index dependency_young on dependency (target, next_probe_at) where state = 'missing' and probes < 6;

comment on column work.priority is '-1 suspect, 0 drop, 1 instructor, 2 add, 3 claim, 4 repair';
