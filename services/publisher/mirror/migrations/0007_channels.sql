-- When each channel last delivered, whichever process took it.
create table channel (
  tenant text not null,
  channel text not null,             -- ib:<node>, events:<caller>, snapshot:<caller>
  last_at timestamptz not null,
  deliveries bigint not null,
  primary key (tenant, channel)
);
