-- A channel that has never delivered is silent since it was first expected, however often publishers start.
alter table channel
  alter column last_at drop not null,      -- null: it has never delivered
  add column expected_since timestamptz;   -- when a publisher first read of it in SOURCE_CADENCE_FILE
