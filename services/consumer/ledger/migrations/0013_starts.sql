-- People who have to be decided again when a moment comes: an enrollment of theirs begins then.

create table wake (
  tenant text not null,
  person text not null,
  at timestamptz not null,
  primary key (tenant, person)
);
create index wake_due on wake (at);

-- It was to say the same for one entity and seat, and was never written: before its start an entity gives nothing.
alter table entitlement drop column decide_again_at;
