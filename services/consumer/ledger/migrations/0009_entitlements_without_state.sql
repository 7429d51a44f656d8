-- An entitlement says which seats an entity gives, so that a seat it gives no longer is found. What state it gives is decided from
-- the entity whenever it is asked for: kept here as well, it cost a write for every event, and nobody read it.

alter table entitlement drop column state, drop column version;

-- Most rows are about no record; they need not be in the index of records.
drop index history_record;
create index history_record on history (topic, "partition", "offset") where topic is not null;
