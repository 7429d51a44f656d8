-- In a table that nobody has counted yet the planner takes an index of which it uses the tenant alone for as good as the key's own:
-- then each look-up by key reads everything that the tenant has. No index but the keys' own begins with the tenant now.
drop index source_row_entity;
create index source_row_entity on source_row (entity_key, entity_kind, tenant);
drop index entity_section;
create index entity_section on entity (institution, term, section, tenant);
drop index entity_person;
create index entity_person on entity (person, tenant);
