-- What state each seat is in and since when, dead letters by class, and sections whose members are still to be decided.

-- Since when a call's unknown outcome hangs over the seat; kept by triggers, so that whoever sets `suspect_until` need not know.
alter table seat add column suspect_since timestamptz;
update seat set suspect_since = clock_timestamp() where suspect_until is not null;
alter table seat add check ((suspect_until is null) = (suspect_since is null));
create index seat_suspect on seat (target, suspect_since) where suspect_since is not null;

create function note_suspicion() returns trigger language plpgsql as $$
begin
  new.suspect_since := case when new.suspect_until is not null then coalesce(new.suspect_since, clock_timestamp()) end;
  return new;
end $$;
create trigger seat_inserted_suspect before insert on seat for each row
  when (new.suspect_until is not null) execute function note_suspicion();
create trigger seat_suspicion before update on seat for each row
  when ((old.suspect_until is null) <> (new.suspect_until is null)) execute function note_suspicion();

alter table work add column state_since timestamptz not null default clock_timestamp();  -- `created_at`: unsettled since
alter table work add column code text;                        -- the outcome's own code, from a closed list of the target
alter table work add column releases int not null default 0;  -- times that a timer, not a person, has released this dead letter
alter table work add column dead_class text generated always as (
  case when state = 'dead' then coalesce(reason, 'unknown') || coalesce(':' || code, '') end) stored;
update work set state_since = created_at;
create index work_dead on work (target, dead_class, state_since, seat) where state = 'dead';

create function note_state() returns trigger language plpgsql as $$
begin
  new.state_since := clock_timestamp();
  return new;
end $$;
create trigger work_state before update on work for each row
  when (old.state <> new.state) execute function note_state();

-- Members of a section in their order, a batch at a time.
drop index entity_section;
create index entity_section on entity (tenant, section, person) where kind = 'enrollment';

-- Sections that changed and have too many members to decide them with the event itself. `upto` is the last person decided.
create table section_to_decide (
  tenant text not null,
  section text not null,             -- section key text
  since timestamptz not null default clock_timestamp(),
  upto text not null default '',
  primary key (tenant, section)
);

-- What never goes back. The statements see to it themselves; these refuse a defect before it is written.
create function refuse_to_go_back() returns trigger language plpgsql as $$
begin
  raise exception 'a row of % would go back: %', tg_table_name, tg_argv[0] using errcode = 'assert_failure';
end $$;
create trigger entity_goes_on before update on entity for each row
  when (new.version < old.version or (new.version = old.version and new.content_hash <> old.content_hash))
  execute function refuse_to_go_back('version');
create trigger seat_goes_on before update on seat for each row
  when (new.decision < old.decision or new.mark < old.mark or (new.desired <> old.desired and new.decision = old.decision))
  execute function refuse_to_go_back('decision or mark');
create trigger lease_goes_on before update on lease for each row
  when (new.epoch < old.epoch or (new.epoch = old.epoch and new.owner <> old.owner))
  execute function refuse_to_go_back('epoch');
create trigger intent_stays_closed before update on intent for each row
  when (old.closed_at is not null and (new.closed_at is distinct from old.closed_at or new.outcome is distinct from old.outcome))
  execute function refuse_to_go_back('closed');
create trigger policy_stays before update on policy for each row
  when (new.body <> old.body) execute function refuse_to_go_back('body');
