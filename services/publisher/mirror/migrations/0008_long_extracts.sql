-- The rejects of an extract are kept with the length of its file, which may exceed 2 GiB.
alter table quarantine alter column body_bytes type bigint;
