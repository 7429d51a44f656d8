-- What extracts remove is counted over a while: many that each lack a little are as wrong as one that lacks much.
alter table snapshot
  add column lacking bigint,             -- of `absent`: rows of people and classes that are there by what the mirror holds
  add column counted_at timestamptz,     -- when that was counted
  add column counted_since timestamptz;  -- what extracts removed from then on was counted with it
