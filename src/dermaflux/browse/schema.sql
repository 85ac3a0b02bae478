-- The index of `dermaflux browse`. Columns of `images` come in the order in which the page shows them.
create table images (
  row integer primary key,
  image_id text,
  caption text,
  kind text not null,
  label text,
  source text,
  split text,
  skin_tone text,
  audit_verdict text,
  audit_ratio real,
  duplicate_group text,
  group_size integer,
  quarantine_rule text,
  quarantine_reason text,
  diagnosis text,
  scale integer,
  licence text,
  generator text
);
-- Where the pixels of a row are.
create table places (row integer primary key, file text not null, row_group integer, position integer);
create table neighbours (
  pair integer primary key,
  image_id text,
  nearest_id text,
  distance real,
  ratio real,
  original_id text,
  correlation real,
  audit_verdict text
);
create table problems (sentence text);
-- After the rows.
create index images_image_id on images (image_id);
-- A quarantined copy names an image that it copies; its group is that of this image.
update images set duplicate_group = coalesce(
  (select kept.duplicate_group from images as kept
    where kept.image_id = images.duplicate_group and kept.kind = 'real'),
  duplicate_group
) where kind = 'quarantined' and duplicate_group is not null;
create table duplicate_groups as
  select duplicate_group, count(*) as images, sum(kind = 'quarantined') as quarantined,
    group_concat(distinct source) as sources, group_concat(distinct label) as labels,
    group_concat(distinct split) as splits
  from images where duplicate_group is not null
  group by duplicate_group having count(*) > 1;
create unique index duplicate_groups_key on duplicate_groups (duplicate_group);
create index duplicate_groups_images on duplicate_groups (images);
create index duplicate_groups_quarantined on duplicate_groups (quarantined);
update images set group_size = (
  select images from duplicate_groups where duplicate_group = images.duplicate_group
) where duplicate_group is not null;
-- The column, the order of a page, and what else is filtered by: no row is read that a filter leaves
-- out, and none to count.
create index images_kind on images (kind, row, label, source, split, skin_tone);
create index images_label on images (label, row, kind, source, split, skin_tone);
create index images_source on images (source, row, kind, label, split, skin_tone);
create index images_split on images (split, row, kind, label, source, skin_tone);
create index images_skin_tone on images (skin_tone, row, kind, label, source, split);
create index images_duplicate_group on images (duplicate_group);
create index images_group_size on images (group_size);
create index images_quarantine_rule on images (quarantine_rule);
create index images_audit_verdict on images (audit_verdict);
create index images_audit_ratio on images (audit_ratio);
create index images_kind_audit_ratio on images (kind, audit_ratio);
create index images_diagnosis on images (diagnosis);
create index images_scale on images (scale);
create index neighbours_image_id on neighbours (image_id);
create index neighbours_nearest on neighbours (nearest_id);
create index neighbours_ratio on neighbours (ratio);
-- Every combination of what the page counts.
create table counts as
  select kind, label, source, split, skin_tone, quarantine_rule, audit_verdict, count(*) as images
  from images group by 1, 2, 3, 4, 5, 6, 7;
create virtual table captions using fts5(
  caption, quarantine_reason, content='images', content_rowid='row'
);
insert into captions(captions) values ('rebuild');
