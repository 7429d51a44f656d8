-- A ledger that lost history: what it has forgotten is in the log, and until it has been read again nobody may write to the LMS.

alter table recovery add column behind boolean not null default false;
