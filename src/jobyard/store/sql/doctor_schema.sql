-- Everything in the schema that our statements rely on, a line a thing, so that two databases can be compared.
SELECT line FROM (
    SELECT format('column %s.%s %s%s%s%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                  CASE WHEN a.attnotnull THEN ' not null' END,
                  CASE a.attidentity WHEN 'a' THEN ' generated always as identity' END,
                  ' default ' || pg_get_expr(d.adbin, d.adrelid)) AS line
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = to_regnamespace('jobyard') AND c.relkind = 'r'
    UNION ALL
    SELECT format('option %s.%s', relname, unnest(reloptions))
    FROM pg_class WHERE relnamespace = to_regnamespace('jobyard') AND relkind = 'r'
    UNION ALL
    SELECT 'index ' || pg_get_indexdef(i.indexrelid) || CASE WHEN i.indisvalid THEN '' ELSE ' (invalid)' END
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    WHERE c.relnamespace = to_regnamespace('jobyard') AND c.relkind = 'r'
    UNION ALL
    SELECT format('check %s %s', c.relname, pg_get_constraintdef(k.oid))
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    WHERE c.relnamespace = to_regnamespace('jobyard') AND k.contype = 'c'
    UNION ALL
    SELECT format('sequence %s cache %s', c.relname, s.seqcache)
    FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid WHERE c.relnamespace = to_regnamespace('jobyard')
    UNION ALL
    SELECT format('function %s %s', proname, md5(prosrc)) FROM pg_proc WHERE pronamespace = to_regnamespace('jobyard')
    UNION ALL
    SELECT format('view %s.%s', relname, a.attname)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE relnamespace = to_regnamespace('jobyard') AND relkind = 'v'
    UNION ALL
    SELECT format('trigger %s on %s', t.tgname, c.relname)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE c.relnamespace = to_regnamespace('jobyard') AND NOT t.tgisinternal
) l ORDER BY line COLLATE "C";
