-- A large hold needs two people: who was the first, and what they had seen. Both null: nobody, or it has been acted upon.
alter table hold add column first_actor text;
alter table hold add column first_snapshot bigint;
alter table hold add column first_lapses_at timestamptz;
alter table hold add constraint hold_first_check
  check ((first_actor is null) = (first_snapshot is null) and (first_actor is null) = (first_lapses_at is null));
